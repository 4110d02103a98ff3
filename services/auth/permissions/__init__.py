"""The permission catalog: which keys there are, and what has become of them."""
