"""Reading an atlas: folder, bundle, several as one, some rows of one."""
