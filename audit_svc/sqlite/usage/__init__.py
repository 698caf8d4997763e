"""What was used by period: kept with the rows, summed up, made again."""
