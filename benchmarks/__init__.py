"""The figures of design §9, on the code and the parts the services run on. docs/performance.md explains them."""
