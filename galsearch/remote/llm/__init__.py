"""Language models outside: the endpoint, many jobs under a budget, prices."""
