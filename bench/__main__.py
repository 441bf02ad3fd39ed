"""`make bench`."""

from bench.cost import main

main()
