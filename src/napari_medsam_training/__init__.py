"""The engine of training at scale: curate, embed, fit, report. The recipes in `training/` call it."""
