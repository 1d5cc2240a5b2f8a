"""The page that shows a camera before and after deblurring."""
