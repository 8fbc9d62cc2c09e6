"""Settings: one file, read from the environment (and `.env`). The defaults are complete for a laptop.

Every setting that a deployment may change is read with `env` here, with its default and unit, and is listed in the
README's table. System checks with ids (`controlplane.server.checks`) reject settings that cannot work at startup,
instead of letting a request fail later.
"""

import secrets
import sys
from datetime import timedelta
from pathlib import Path

from csp import constants as csp

from controlplane import frame
from controlplane.core.environment import Environment, broker, read_file
from controlplane.core.secretfile import kept, own_directory, own_file

BASE_DIR = Path(__file__).resolve().parent.parent
# Installed from a wheel: instance data lives in the current directory, never among the installed packages.
FROM_WHEEL = not (BASE_DIR / "manage.py").is_file()
HOME_DIR = Path.cwd() if FROM_WHEEL else BASE_DIR
env = Environment()
read_file(HOME_DIR / ".env")

# The directory for instance data: the SQLite file, generated keys, checkpoints.
VAR_DIR = Path(env.str("POINTSMAN_VAR", default=str(HOME_DIR / "var")))
own_directory(VAR_DIR)

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or kept(
    VAR_DIR / "secret-key", lambda: secrets.token_urlsafe(50)
)
# Earlier values, so that what they signed and encrypted stays valid. Each also with the line break that a key read
# from a file ends with: it is part of that key (`Environment`), and a list cannot express it.
SECRET_KEY_FALLBACKS = [
    key for line in env.list("SECRET_KEY_FALLBACKS", default=[]) for key in (line, f"{line}\n")
]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# Off on a laptop without TLS. A deployment behind TLS turns it on and gets HSTS and secure cookies.
HTTPS = env.bool("HTTPS", default=False)

INSTALLED_APPS = [
    # Not "unfold" and "django.contrib.admin": those would set up their own sites.
    "unfold.apps.BasicAppConfig",
    "controlplane.apps.ConsoleConfig",
    # Before django.contrib.auth, so that its commands override Django's.
    "controlplane.apps.ControlplaneConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_ace",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "axes",
    "rest_framework",
    "drf_spectacular",
    "controlplane.core",
    "controlplane.access",
    "controlplane.audit",
    "controlplane.notifications",
    "policies_app",
    "rollout_app",
    "rollout_app.review",
]

MIDDLEWARE = [
    # First, so that the log lines of the others carry its request id.
    "controlplane.access.middleware.origin",
    "controlplane.web.addresses.readable",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "controlplane.web.security_headers.security_headers",
    "controlplane.web.limits.limit_by_address",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "controlplane.access.sign_in.guard.second_factor",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it replaces the response of a locked-out sign-in
]

ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "controlplane" / "templates" if FROM_WHEEL else BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "libraries": {
                "display": "controlplane.web.display",
                "rollouts": "rollout_app.console.template_tags",
            },
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database -----------------------------------------------------------------------------------------
connection_s = env.int("DATABASE_CONN_MAX_AGE", default=60)  # seconds; checked for SQLite, too
statement_s = env.int("DATABASE_STATEMENT_TIMEOUT", default=30, least=1)  # seconds; none for `migrate`
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'pointsman.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    if DATABASES["default"]["NAME"] != ":memory:":
        own_file(Path(DATABASES["default"]["NAME"]))  # SQLite gives the journal and the index the same mode
    DATABASES["default"]["OPTIONS"] = {
        # IMMEDIATE: a writing transaction takes the write lock at BEGIN. With the default, two readers that both try
        # to write deadlock, and SQLite fails one of them at once, regardless of the busy timeout.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds to wait for the lock
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
            # Without it, `INSERT OR REPLACE` deletes a row without firing the audit log's DELETE trigger.
            "PRAGMA recursive_triggers=ON;"
        ),
    }
else:
    DATABASES["default"] |= {"CONN_MAX_AGE": connection_s, "CONN_HEALTH_CHECKS": True}
    # Every wait is limited: for the connection, a statement, a lock, and a host that vanished silently. A client idle
    # in a transaction is presumed dead: until the server ends it, it holds its locks and blocks every change.
    given = DATABASES["default"].get("OPTIONS", {})
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,  # seconds
        "keepalives": 1,
        "keepalives_idle": 3,  # seconds
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 8_000,  # milliseconds
        **given,
        # `?options=` in the address is added: alone it would remove these limits.
        "options": (
            f"-c statement_timeout={statement_s}s -c lock_timeout=20s"
            f" -c idle_in_transaction_session_timeout=15s {given.get('options', '')}"
        ).strip(),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Redis, Celery: optional --------------------------------------------------------------------------
# With Redis: change notifications between processes, the Celery broker, rate limits shared by all processes. Without:
# each process polls the database, and the embedded runner runs the periodic jobs.
REDIS_URL = env.redis("REDIS_URL")
CELERY_BROKER_URL = broker(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # wait for an unreachable broker without limit
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Without timeouts, a half-open connection blocks for ever: beat waited for the reply to a message it had sent, and so
# did the workers.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,  # seconds
    "socket_connect_timeout": 5,
    "health_check_interval": 5,
}
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "controlplane.core.beat.Scheduler"
EMBEDDED_RUNNER = env.bool("EMBEDDED_RUNNER", default=not REDIS_URL)
_CACHE = (
    {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        # Seconds; nothing waits longer for the cache.
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
)
CACHES = {
    "default": _CACHE | ({"BACKEND": "controlplane.core.redis_or_memory.RedisOrMemory"} if REDIS_URL else {}),
    # Request counts by address, in a cache of their own so that they do not evict other entries.
    "limits": _CACHE if REDIS_URL else _CACHE | {"LOCATION": "limits", "OPTIONS": {"MAX_ENTRIES": 100_000}},
}

# --- People -------------------------------------------------------------------------------------------
PASSWORD_HASHERS = ["controlplane.access.sign_in.hashing.TwoAtOnceArgon2Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "console:login"
LOGIN_REDIRECT_URL = "console:index"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: a locked-out user costs no password hash
    "controlplane.access.sign_in.passwords.PasswordBackend",
]
ACCOUNT_ADAPTER = "controlplane.access.sign_in.adapters.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "controlplane.access.sign_in.entrance.SignInForm",
    "change_password": "controlplane.access.sign_in.own_password.ChangePasswordForm",
}
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"  # addresses are informational only; nothing relies on them
ACCOUNT_LOGOUT_REDIRECT_URL = "console:login"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_RATE_LIMITS = {"login": None}  # django-axes counts sign-ins
ACCOUNT_REAUTHENTICATION_REQUIRED = True  # ask for the password before sign-in settings change
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300  # seconds
MFA_ADAPTER = "controlplane.access.sign_in.stored_secrets.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
# A challenge and its answer count as two; each makes a session.
MFA_RATE_LIMITS = {"webauthn_login": "60/m/ip"}
MFA_TOTP_ISSUER = "Pointsman"
MFA_TOTP_TOLERANCE = 1  # steps of 30 s by which a phone's clock may be off
# Require a second factor for people who sign in with a password. They set it up on their first page.
REQUIRE_SECOND_FACTOR = env.bool("REQUIRE_SECOND_FACTOR", default=False)
# The company's OpenID Connect provider; off without an issuer.
OIDC_ISSUER = env.str("OIDC_ISSUER", default="")
OIDC_FORMER_ISSUERS = env.list("OIDC_FORMER_ISSUERS", default=[])  # earlier addresses of the same provider
OIDC_CLIENT_ID = env.str("OIDC_CLIENT_ID", default="")
OIDC_CLIENT_SECRET = env.str("OIDC_CLIENT_SECRET", default="")
OIDC_NAME = env.str("OIDC_NAME", default="your company's account")
SOCIALACCOUNT_ADAPTER = "controlplane.access.sign_in.company.CompanyAdapter"
# Sign-in is a link, because the content security policy forbids forms that lead to another site.
SOCIALACCOUNT_LOGIN_ON_GET = True
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False  # an email address is no proof of identity
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5  # seconds
_company = {"provider_id": "company", "name": OIDC_NAME, "settings": {"server_url": OIDC_ISSUER}}
_company |= {"client_id": OIDC_CLIENT_ID, "secret": OIDC_CLIENT_SECRET}
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [_company] if OIDC_ISSUER else []}
}
# After ten failures for one name from one address, that pair must wait, and no password is checked.
AXES_FAILURE_LIMIT = env.int("SIGN_IN_FAILURES", default=10, least=1)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # further attempts do not extend the lockout
AXES_USERNAME_CALLABLE = "controlplane.access.sign_in.throttle.counted_name"
AXES_CLIENT_IP_CALLABLE = "controlplane.access.sign_in.throttle.client_address"
AXES_LOCKOUT_CALLABLE = "controlplane.access.sign_in.throttle.locked_out"
AXES_SENSITIVE_PARAMETERS = ["username", "login", "code", "next", "csrfmiddlewaretoken"]
AXES_DISABLE_ACCESS_LOG = True  # the audit log records every sign-in
AXES_ENABLE_ADMIN = AXES_VERBOSE = False

# --- Web ----------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=str(HOME_DIR / "staticfiles"))
WHITENOISE_USE_FINDERS = True  # `make run` needs no collectstatic
X_FRAME_OPTIONS = "DENY"
SESSION_ENGINE = "controlplane.access.sign_in.session_store"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# What a page may load: files from this server, and nothing inline. The theme's Alpine.js evaluates attributes as
# expressions, which requires 'unsafe-eval' (docs/security.md explains the remaining risk).
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [csp.NONE],
        "script-src": [csp.SELF, csp.UNSAFE_EVAL, csp.NONCE],
        "script-src-attr": [csp.NONE],
        "style-src": [csp.SELF],
        "img-src": [csp.SELF, "data:"],
        "font-src": [csp.SELF],
        "connect-src": [csp.SELF],
        "manifest-src": [csp.SELF],
        "form-action": [csp.SELF],
        "base-uri": [csp.NONE],
        "object-src": [csp.NONE],
        "frame-ancestors": [csp.NONE],
    }
}
# Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted. The headers are removed from other requests.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=["127.0.0.0/8", "::1"])
# Requests per minute from one address; 0 means no limit (`controlplane.web.limits`).
API_LIMIT = env.int("API_LIMIT", default=1_200)
SIGN_IN_LIMIT = env.int("SIGN_IN_LIMIT", default=60)
# Who may read /metrics: clients with this key, or at these addresses and networks. If neither is set: everybody.
METRICS_KEY = env.str("METRICS_KEY", default="")
METRICS_ADDRESSES = env.list("METRICS_ADDRESSES", default=[])
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024  # bytes of a request body, outside the data plane

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "controlplane.web.openapi.Schema",
    "UNAUTHENTICATED_USER": None,
    # `?format=` is our own parameter (the audit log's export); DRF would look for a renderer of that name.
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "controlplane.core.problems.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Pointsman",
    "DESCRIPTION": "The admin API. Errors are RFC 9457 problem details with a stable `code`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",  # its schemas are JSON Schema, so the policy document's schema is used unchanged
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": ["controlplane.web.openapi.finished"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "RoleEnum": "controlplane.access.models.Role",
        "StageModeEnum": ["shadow", "percentage", "full"],
        "ServedModeEnum": "policies_app.models.Assignment.Mode",
        "KeyKindEnum": "controlplane.access.models.Key.Kind",
        "ReceiverKindEnum": "controlplane.notifications.models.Receiver.Kind",
    },
}
CSRF_FAILURE_VIEW = "controlplane.core.problems.csrf_failure"

# --- Logs ---------------------------------------------------------------------------------------------
# json: one object per line, for machines. text: for people. The default depends on whether stderr is a terminal.
LOG_FORMAT = env.word("LOG_FORMAT", ("text", "json"), default="text" if sys.stderr.isatty() else "json")
LOG_LEVEL = env.word("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "WARN"), default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "controlplane.core.logs.JsonLines"},
        "text": {"()": "controlplane.core.logs.TextLines"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # Django's own handlers would log everything twice, and send mail.
    "loggers": {"django": {"handlers": [], "propagate": True}, "axes": {"level": "WARNING"}},
}

# --- Console ------------------------------------------------------------------------------------------
UNFOLD = frame.UNFOLD

# --- Pointsman ----------------------------------------------------------------------------------------
# The Ed25519 private key (base64 of 32 bytes) that signs snapshots and audit checkpoints; generated at the first
# start. During a rotation several keys, separated by commas: the first signs checkpoints, all sign snapshots.
SIGNING_KEY = env.str("POINTSMAN_SIGNING_KEY", default="")
CLOCK = "database"  # "process" only in tests that travel in time
POLL_INTERVAL_MS = env.int("POINTSMAN_POLL_INTERVAL_MS", default=10_000)  # of new environments
HOST = env.str("HOST", default="127.0.0.1")
PORT = env.int("PORT", default=8000, most=65_535)
WORKERS = env.int("WORKERS", default=1, least=1, most=1_000)  # server processes; over one needs PostgreSQL
MAX_WAITERS_PER_KEY = env.int("POINTSMAN_MAX_WAITERS_PER_KEY", default=10_000, least=1)  # per process
# Days to keep outcomes by endpoint, rule and model; totals by arm and feedback. Routers may report a week late.
OUTCOME_RETENTION_DAYS = env.int("POINTSMAN_OUTCOME_RETENTION_DAYS", default=90, least=9, most=36_500)
TOTALS_RETENTION_DAYS = env.int("POINTSMAN_TOTALS_RETENTION_DAYS", default=400, least=9, most=36_500)

# --- Notifications --------------------------------------------------------------------------------------
# The console's public address, for links in messages: `https://pointsman.example.org`.
PUBLIC_URL = env.str("PUBLIC_URL", default="")
# Internal hosts and networks (`10.1.0.0/16`) that webhooks may call, also without TLS. Other internal addresses are
# refused.
WEBHOOK_ALLOWED = [name.lower() for name in env.list("WEBHOOK_ALLOWED", default=[])]
HELD_AFTER_MINUTES = env.int("HELD_AFTER_MINUTES", default=240, least=1)  # a rollout held longer is reported
# `smtp+tls://user:password@mail.example.org:587`; empty: no mail is sent.
vars().update(_mail := env.email("EMAIL_URL", default=""))
EMAIL_HOST_SET = bool(_mail)
EMAIL_TIMEOUT = 30  # seconds, for each answer of the server; `sending.MAIL_PATIENCE_S` is for all
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="pointsman@localhost")

# --- Snapshots through a CDN: optional (docs/explanation/scaling.md) ------------------------------------------------
SNAPSHOT_BUCKET = env.str("SNAPSHOT_BUCKET", default="")
SNAPSHOT_PREFIX = env.str("SNAPSHOT_PREFIX", default="")
SNAPSHOT_MAX_AGE = env.int("SNAPSHOT_MAX_AGE", default=5)  # seconds for which a CDN may cache a snapshot
AWS_S3_ENDPOINT_URL = env.str("AWS_S3_ENDPOINT_URL", default="")
AWS_S3_REGION_NAME = env.str("AWS_S3_REGION_NAME", default="")
