/* A library that does nothing: what loading costs is measured against it. */
int nothing;
