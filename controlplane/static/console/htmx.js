// Loaded right after htmx. It would write a style element of its own, and may evaluate expressions; pages need neither.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;
htmx.config.selfRequestsOnly = true;
