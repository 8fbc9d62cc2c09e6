"""The look of the console's frame, for the theme: `UNFOLD` of the settings. Nothing in it depends on the deployment."""

from django.templatetags.static import static

UNFOLD = {
    "SITE_TITLE": "Pointsman",
    "SITE_HEADER": "Pointsman",
    "SITE_SUBHEADER": "Router policies, guarded",
    "SITE_URL": None,
    "SITE_ICON": lambda request: static("console/mark.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("console/mark.svg")}
    ],
    "STYLES": [
        lambda request: static("console/theme.css"),
        lambda request: static("console/console.css"),
    ],
    "SCRIPTS": [
        lambda request: static("console/htmx.js"),
        lambda request: static("console/console.js"),
        lambda request: static("console/live.js"),
        lambda request: static("console/charts.js"),
        lambda request: static("console/curve.js"),
    ],
}
