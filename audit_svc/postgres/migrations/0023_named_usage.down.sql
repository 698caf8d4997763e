DROP TABLE relabelled;
DROP TABLE session_traits;
DROP TABLE named_usage;
