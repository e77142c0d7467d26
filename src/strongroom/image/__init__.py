"""From a program to a signed image: manifest, layout, page records, measuring, signing. Needs no C build."""
