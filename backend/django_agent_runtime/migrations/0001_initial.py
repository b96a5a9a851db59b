import uuid

import django.core.serializers.json
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AbandonedRun",
            fields=[
                ("run_id", models.UUIDField(primary_key=True, serialize=False)),
                ("deleted_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("missed_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="ProjectorCursor",
            fields=[
                ("namespace", models.CharField(max_length=63, primary_key=True, serialize=False)),
                ("sequence", models.BigIntegerField(default=0)),
                ("owner", models.CharField(blank=True, max_length=200)),
                ("lease_expires_at", models.DateTimeField(blank=True, null=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.CreateModel(
            name="AgentConversation",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("anonymous_session_id", models.UUIDField(blank=True, null=True)),
                ("agent_key", models.CharField(blank=True, max_length=255)),
                ("title", models.CharField(blank=True, max_length=255)),
                (
                    "metadata",
                    models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="agent_conversations",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "conversation",
            },
        ),
        migrations.CreateModel(
            name="AgentRun",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("anonymous_session_id", models.UUIDField(blank=True, null=True)),
                ("agent_key", models.CharField(max_length=255)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("waiting", "Waiting"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                            ("timed_out", "Timed Out"),
                        ],
                        default="queued",
                        max_length=16,
                    ),
                ),
                (
                    "input",
                    models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
                ),
                ("output", models.JSONField(blank=True, default=dict)),
                ("error", models.JSONField(blank=True, null=True)),
                ("interrupt", models.JSONField(blank=True, null=True)),
                ("attempt", models.PositiveIntegerField(default=0)),
                ("max_attempts", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("idempotency_key", models.CharField(blank=True, max_length=255)),
                ("payload_hash", models.CharField(blank=True, editable=False, max_length=64)),
                ("priority", models.SmallIntegerField(default=0)),
                ("options", models.JSONField(blank=True, default=dict)),
                (
                    "metadata",
                    models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("cancel_requested_at", models.DateTimeField(blank=True, null=True)),
                ("cancel_acknowledged_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("rolled_back_by", models.UUIDField(blank=True, editable=False, null=True)),
                ("submitted_at", models.DateTimeField(blank=True, null=True)),
                ("last_sequence", models.BigIntegerField(default=0, editable=False)),
                (
                    "conversation",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="django_agent_runtime.agentconversation",
                    ),
                ),
                (
                    "retry_of",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="retries",
                        to="django_agent_runtime.agentrun",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="agent_runs",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "run",
                "permissions": (("view_internal_events", "Can see the internal events of runs"),),
            },
        ),
        migrations.CreateModel(
            name="AgentEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("seq", models.BigIntegerField()),
                ("event_type", models.CharField(max_length=200)),
                ("payload", models.JSONField(blank=True, default=dict)),
                (
                    "visibility",
                    models.CharField(
                        choices=[("internal", "Internal"), ("debug", "Debug"), ("user", "User")],
                        default="user",
                        max_length=8,
                    ),
                ),
                ("attempt", models.PositiveIntegerField(default=0)),
                ("timestamp", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="events",
                        to="django_agent_runtime.agentrun",
                    ),
                ),
            ],
            options={
                "verbose_name": "event",
                "ordering": ("seq",),
            },
        ),
        migrations.AddIndex(
            model_name="agentconversation",
            index=models.Index(fields=["user", "-created_at", "-id"], name="agent_conversation_of_user"),
        ),
        migrations.AddIndex(
            model_name="agentconversation",
            index=models.Index(
                fields=["anonymous_session_id", "-created_at", "-id"], name="agent_conversation_of_session"
            ),
        ),
        migrations.AddIndex(
            model_name="agentconversation",
            index=models.Index(fields=["-created_at", "-id"], name="agent_conversation_newest"),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(fields=["user", "-created_at", "-id"], name="agent_run_of_user"),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(fields=["anonymous_session_id", "-created_at", "-id"], name="agent_run_of_session"),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(fields=["conversation", "created_at", "id"], name="agent_run_of_conversation"),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(fields=["-created_at", "-id"], name="agent_run_newest"),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(
                condition=models.Q(("status", "queued"), ("submitted_at__isnull", True)),
                fields=["created_at", "id"],
                name="agent_run_unsubmitted",
            ),
        ),
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(
                condition=models.Q(
                    ("cancel_requested_at__isnull", False), ("status__in", ("queued", "running", "waiting"))
                ),
                fields=["cancel_requested_at", "id"],
                name="agent_run_to_cancel",
            ),
        ),
        migrations.AddConstraint(
            model_name="agentrun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["queued", "running", "waiting", "succeeded", "failed", "cancelled", "timed_out"])
                ),
                name="agent_run_status_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="agentrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("user__isnull", False), models.Q(("idempotency_key", ""), _negated=True)),
                fields=("user", "idempotency_key"),
                name="agent_run_key_of_user",
            ),
        ),
        migrations.AddConstraint(
            model_name="agentrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    ("anonymous_session_id__isnull", False), models.Q(("idempotency_key", ""), _negated=True)
                ),
                fields=("anonymous_session_id", "idempotency_key"),
                name="agent_run_key_of_session",
            ),
        ),
        migrations.AddConstraint(
            model_name="agentevent",
            constraint=models.UniqueConstraint(fields=("run", "seq"), name="agent_event_sequence_of_run"),
        ),
    ]
