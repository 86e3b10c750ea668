"""Starting, supervising and ending the local stack's processes."""
