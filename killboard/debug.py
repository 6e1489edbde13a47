"""What Django's page for errors, which DEBUG shows, must not show."""

import re

from django.views.debug import SafeExceptionReporterFilter


class AddressesHidden(SafeExceptionReporterFilter):
    """Addresses hold passwords, too."""

    hidden_settings = re.compile(
        SafeExceptionReporterFilter.hidden_settings.pattern + "|URL|REDIS|LAYERS|DATABASES", re.I
    )
