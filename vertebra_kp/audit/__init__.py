"""Labels examined: wrong corners, duplicates, names of levels that contradict each other."""
