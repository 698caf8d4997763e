DROP TABLE args_index_zones;
DROP TABLE args_index;
