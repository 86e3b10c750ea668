"""Files of transactions as rows, and rows as events: readers, mappings, and a simulator."""
