"""Feast on Centinela's terms [A]: its stores with event time kept, its definitions applied, served vectors pushed to it."""
