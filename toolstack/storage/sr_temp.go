package storage

// readOnlyTypes are repositories of volumes that others made.
var readOnlyTypes = map[string]bool{"iso": true, "udev": true}
