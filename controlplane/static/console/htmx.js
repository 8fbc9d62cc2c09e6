// Loaded right after htmx. By default htmx writes a style element and may evaluate expressions; our pages
// need neither.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;
htmx.config.selfRequestsOnly = true;
