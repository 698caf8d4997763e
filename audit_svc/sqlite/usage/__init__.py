"""Usage by period: kept with the rows, summed up, rebuilt."""
