"""What every room needs: errors that a user can mend, files that are whole or not there.

How a process ends, values of command lines and the files that come with the package, likewise.
"""
