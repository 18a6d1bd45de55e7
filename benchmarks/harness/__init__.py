"""What every part of `make bench` uses: processes, sums, tables, pictures, targets."""
