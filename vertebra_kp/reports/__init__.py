"""Pages and files that people read: measurement reports and evaluation reports."""
