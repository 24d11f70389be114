"""What tools/s3-server is made of: real S3 servers, started on loopback for trying and testing."""
