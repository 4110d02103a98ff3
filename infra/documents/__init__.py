"""What is given out to be read elsewhere: tables as CSV, pictures as SVG, pages as PDF. No business word in it."""
