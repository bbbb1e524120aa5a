"""Turns pictures into DOT, Mermaid, SVG, files, and tables."""
