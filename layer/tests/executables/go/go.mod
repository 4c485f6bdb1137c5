module executables

go 1.19
