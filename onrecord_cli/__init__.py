"""`onrecord`: one command for people, which starts the services for them and hands each question to the right one."""
