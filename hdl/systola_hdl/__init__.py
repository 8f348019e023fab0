"""Systola."""
