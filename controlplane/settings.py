"""Settings: one file, read from the environment (and `.env`), complete on a laptop with nothing set.

Every setting that a deployment may change is read by `env` here, with its default and its unit, and is
listed in the README's table. What cannot work is refused at start by a system check with an id
(`controlplane.server.checks`), not found out by a request.
"""

import secrets
import sys
from datetime import timedelta
from pathlib import Path

import environ
from csp import constants as csp
from django.templatetags.static import static

from controlplane.core.secretfile import kept, own_directory, own_file

BASE_DIR = Path(__file__).resolve().parent.parent
# From a wheel: what is an instance's own lies where the command is run, never among the installed packages.
FROM_WHEEL = not (BASE_DIR / "manage.py").is_file()
HOME_DIR = Path.cwd() if FROM_WHEEL else BASE_DIR
env = environ.FileAwareEnv()
environ.Env.read_env(HOME_DIR / ".env")

# Where an instance keeps what is its own: the SQLite file, generated keys, checkpoints.
VAR_DIR = Path(env.str("POINTSMAN_VAR", default=str(HOME_DIR / "var")))
own_directory(VAR_DIR)


DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or kept(
    VAR_DIR / "secret-key", lambda: secrets.token_urlsafe(50)
)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# Off on a laptop, where there is no TLS; a deployment behind TLS sets it and gets HSTS and secure cookies.
HTTPS = env.bool("HTTPS", default=False)

INSTALLED_APPS = [
    # Not "unfold" and "django.contrib.admin": those set up a site of their own.
    "unfold.apps.BasicAppConfig",
    "controlplane.apps.ConsoleConfig",
    "controlplane.apps.ControlplaneConfig",  # before Django's accounts: its commands take the place of theirs
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
    "controlplane.access.middleware.origin",  # first: what the others log carries its id
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
    "axes.middleware.AxesMiddleware",  # last: it answers in place of a page that was locked out
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
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'pointsman.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    if DATABASES["default"]["NAME"] != ":memory:":
        own_file(Path(DATABASES["default"]["NAME"]))  # its journal and its index get the same mode
    DATABASES["default"]["OPTIONS"] = {
        # IMMEDIATE: a transaction that will write takes the write lock at BEGIN. By default, two readers
        # that both try to write deadlock, and SQLite fails one at once, whatever the busy timeout says.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds to wait for the lock
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
            # Without it `INSERT OR REPLACE` deletes a row behind the back of the audit log's DELETE trigger.
            "PRAGMA recursive_triggers=ON;"
        ),
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = env.int("DATABASE_CONN_MAX_AGE", default=60)  # seconds
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # Every wait has an end: for the connection, a statement, a lock, and for a host that has gone without a word. Who
    # is idle in a transaction has gone: its locks stay with the server until then, and everybody's changes wait.
    statement_s = env.int("DATABASE_STATEMENT_TIMEOUT", default=30)  # seconds; `migrate` has no limit
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,  # seconds
        "keepalives": 1,
        "keepalives_idle": 3,  # seconds
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 8_000,  # milliseconds
        "options": (
            f"-c statement_timeout={statement_s}s -c lock_timeout=20s"
            " -c idle_in_transaction_session_timeout=15s"
        ),
        **DATABASES["default"].get("OPTIONS", {}),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Redis, Celery: optional --------------------------------------------------------------------------
# With Redis: change notices between processes, the Celery broker, throttles shared by all processes.
# Without: each process looks at the database, and the embedded runner runs the periodic table.
REDIS_URL = env.str("REDIS_URL", default="")
CELERY_BROKER_URL = REDIS_URL or None
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker that is away is waited for, however long
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A connection that is half open answers nothing and never ends: without these, beat waited for ever for the reply to
# what it had sent, and workers with it.
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
        # Seconds; nothing waits for it longer.
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
)
CACHES = {
    "default": _CACHE,
    # Counts of requests by address, which must not push each other out.
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
    "axes.backends.AxesStandaloneBackend",  # first: who is locked out costs no hash
    "controlplane.access.sign_in.passwords.PasswordBackend",
]
ACCOUNT_ADAPTER = "controlplane.access.sign_in.adapters.AccountAdapter"
ACCOUNT_FORMS = {"login": "controlplane.access.sign_in.entrance.SignInForm"}
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"  # an address is a note; nothing is proved by it, and nothing rests on it
ACCOUNT_LOGOUT_REDIRECT_URL = "console:login"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_RATE_LIMITS = {"login": None}  # django-axes counts these
ACCOUNT_REAUTHENTICATION_REQUIRED = True  # the password again, before a change to how one signs in
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300  # seconds
MFA_ADAPTER = "controlplane.access.sign_in.stored_secrets.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Pointsman"
MFA_TOTP_TOLERANCE = 1  # steps of 30 s that a telephone's clock may be off
# People who sign in by password need a second factor: on their first page they set one up.
REQUIRE_SECOND_FACTOR = env.bool("REQUIRE_SECOND_FACTOR", default=False)
# The company's identity provider, by OpenID Connect; without an issuer there is none.
OIDC_ISSUER = env.str("OIDC_ISSUER", default="")
OIDC_CLIENT_ID = env.str("OIDC_CLIENT_ID", default="")
OIDC_CLIENT_SECRET = env.str("OIDC_CLIENT_SECRET", default="")
OIDC_NAME = env.str("OIDC_NAME", default="your company's account")
SOCIALACCOUNT_ADAPTER = "controlplane.access.sign_in.company.CompanyAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = True  # a link: a form that ends elsewhere is what the content policy forbids
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False  # an address proves nobody
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5  # seconds
_company = {
    "provider_id": "company",
    "name": OIDC_NAME,
    "client_id": OIDC_CLIENT_ID,
    "secret": OIDC_CLIENT_SECRET,
    "settings": {"server_url": OIDC_ISSUER},
}
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [_company] if OIDC_ISSUER else []}
}
# Ten failures of one name from one address; then that pair waits, and no password is looked at.
AXES_FAILURE_LIMIT = env.int("SIGN_IN_FAILURES", default=10)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # nobody is kept out for longer by trying
AXES_USERNAME_CALLABLE = "controlplane.access.sign_in.throttle.counted_name"
AXES_CLIENT_IP_CALLABLE = "controlplane.access.sign_in.throttle.client_address"
AXES_LOCKOUT_CALLABLE = "controlplane.access.sign_in.throttle.locked_out"
AXES_SENSITIVE_PARAMETERS = ["username", "login", "code", "next", "csrfmiddlewaretoken"]
AXES_DISABLE_ACCESS_LOG = True  # the audit log has every sign-in
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
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# What a page may load: files of this server, and nothing inline. The theme's Alpine.js reads its attributes as
# expressions, which takes 'unsafe-eval' (docs/security.md says what that leaves open).
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
# Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; of anybody else they are taken off.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=["127.0.0.0/8", "::1"])
# Requests a minute from one address; 0: any number (`controlplane.web.limits`).
API_LIMIT = env.int("API_LIMIT", default=1_200)
SIGN_IN_LIMIT = env.int("SIGN_IN_LIMIT", default=60)
# Who reads /metrics: with a key, or from these addresses and networks. Neither set: anybody who reaches it.
METRICS_KEY = env.str("METRICS_KEY", default="")
METRICS_ADDRESSES = env.list("METRICS_ADDRESSES", default=[])
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024  # bytes of a request body, outside the data plane

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "controlplane.web.openapi.Schema",
    "UNAUTHENTICATED_USER": None,
    # `?format=` is a parameter of ours (the audit log's export); the framework would look for a renderer of that name.
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "controlplane.core.problems.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Pointsman",
    "DESCRIPTION": "The admin API. Errors are RFC 9457 problem details with a stable `code`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",  # whose schemas are JSON Schema: the policy document's is taken as it is
    "SERVE_INCLUDE_SCHEMA": False,
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
# json: one object a line, for machines. text: for eyes. By default whichever the error stream is read by.
LOG_FORMAT = env.str("LOG_FORMAT", default="text" if sys.stderr.isatty() else "json")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "controlplane.core.logs.JsonLines"},
        "text": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    # Django's own handlers would say everything twice, and mail it.
    "loggers": {"django": {"handlers": [], "propagate": True}, "axes": {"level": "WARNING"}},
}

# --- Console ------------------------------------------------------------------------------------------
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

# --- Pointsman ----------------------------------------------------------------------------------------
# Ed25519 private key (base64 of 32 bytes), signs snapshots and audit checkpoints; made at the first start. Several,
# with commas between, while keys are changed: the first signs checkpoints, all sign snapshots.
SIGNING_KEY = env.str("POINTSMAN_SIGNING_KEY", default="")
CLOCK = "database"  # "process" only in tests that travel in time
POLL_INTERVAL_MS = env.int("POINTSMAN_POLL_INTERVAL_MS", default=10_000)  # what routers are told
HOST = env.str("HOST", default="127.0.0.1")
PORT = env.int("PORT", default=8000)
WORKERS = env.int("WORKERS", default=1)  # server processes; more than one needs PostgreSQL
MAX_WAITERS_PER_KEY = env.int("POINTSMAN_MAX_WAITERS_PER_KEY", default=10_000)  # long polls, per process
# Days that outcomes are kept by endpoint, rule and model.
OUTCOME_RETENTION_DAYS = env.int("POINTSMAN_OUTCOME_RETENTION_DAYS", default=90)
TOTALS_RETENTION_DAYS = env.int("POINTSMAN_TOTALS_RETENTION_DAYS", default=400)  # by arm; feedback

# --- Notifications --------------------------------------------------------------------------------------
# Where people reach the console, for links in messages: `https://pointsman.example.org`.
PUBLIC_URL = env.str("PUBLIC_URL", default="")
# Hosts, and networks (`10.1.0.0/16`), inside that webhooks may go to, and without TLS. Nothing else inside is told.
WEBHOOK_ALLOWED = env.list("WEBHOOK_ALLOWED", default=[])
HELD_AFTER_MINUTES = env.int("HELD_AFTER_MINUTES", default=240)  # a rollout that is held longer is told of
# `smtp+tls://user:password@mail.example.org:587`; empty: no mail is sent.
EMAIL_URL = env.str("EMAIL_URL", default="")
if EMAIL_HOST_SET := bool(EMAIL_URL):
    vars().update(env.email_url_config(EMAIL_URL))
EMAIL_TIMEOUT = 10  # seconds
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="pointsman@localhost")

# --- Snapshots by a CDN: optional (docs/explanation/scaling.md) -----------------------------------------------------
# A bucket that speaks S3; empty: off. Its keys come from where boto3 looks for them.
SNAPSHOT_BUCKET = env.str("SNAPSHOT_BUCKET", default="")
SNAPSHOT_PREFIX = env.str("SNAPSHOT_PREFIX", default="")
SNAPSHOT_MAX_AGE = env.int("SNAPSHOT_MAX_AGE", default=5)  # seconds that a CDN may keep one
AWS_S3_ENDPOINT_URL = env.str("AWS_S3_ENDPOINT_URL", default="")
AWS_S3_REGION_NAME = env.str("AWS_S3_REGION_NAME", default="")
