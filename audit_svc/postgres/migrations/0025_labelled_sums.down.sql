-- The version before would not keep these sums up.
DELETE FROM named_usage WHERE substr(name, 1, 9) = 'labelled:';
