"""Feature state of partitions and terminals, as the stream writes it and the gateway follows it."""
