"""The role that pushes served features into Feast's online store."""
