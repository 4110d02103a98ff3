"""The months of a company's books: open until somebody closes them."""
