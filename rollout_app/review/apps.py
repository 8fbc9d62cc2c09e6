from django.apps import AppConfig


class ReviewConfig(AppConfig):
    name = "rollout_app.review"
    label = "review"
