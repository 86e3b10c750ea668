"""Checks of the packages as they are installed, not of the checkout. ``make package-check`` runs them."""
