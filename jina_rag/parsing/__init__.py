"""From files to pages: what lies in a folder, what its pages look like, what stands where on them."""
