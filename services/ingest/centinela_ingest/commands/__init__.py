"""``centinela replay`` and ``centinela simulate``."""
