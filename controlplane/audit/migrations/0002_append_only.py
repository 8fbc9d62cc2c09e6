from django.db import migrations

from controlplane.audit.triggers import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]

    operations = [AppendOnly("Entry"), AppendOnly("Checkpoint")]
