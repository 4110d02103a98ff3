"""Technology without a business word; `company_id` and `user_id` are the only domain words it may use."""
