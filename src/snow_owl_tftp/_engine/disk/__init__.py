"""Files being sent and received, and the threads that wait for disks so that no worker has to."""
