DROP TABLE session_labels;
DROP TABLE sessions;
