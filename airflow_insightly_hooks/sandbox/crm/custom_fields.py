"""The custom fields and custom objects of the sandbox's account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.sandbox.crm.clock import normalised_time

__all__ = ["CUSTOM_FIELDS", "CUSTOM_OBJECTS", "CustomField", "CustomObject", "custom_field_entry"]

TEXT_LENGTH = 255


@dataclass(frozen=True)
class CustomField:
    """A custom field of a record type.

    :param name: its name in the API, which ends in ``__c``.
    :param kind: Insightly's ``FIELD_TYPE``, such as ``DROPDOWN``.
    :param label: its name for people.
    :param options: the choices of a ``DROPDOWN`` or ``MULTISELECT``.
    """

    name: str
    kind: str
    label: str
    options: tuple[str, ...] = ()

    def normalised(self, value: Any) -> Any:
        """Return ``value`` as the API would answer it.

        :raises ValueError: if it is of the wrong kind. The error says which kind is expected.
        """
        if self.kind == "BIT":
            return _expect(isinstance(value, bool), value, "true or false")
        if self.kind in ("NUMERIC", "PERCENT"):
            return _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, "a number")
        _expect(isinstance(value, str), value, "a text")
        if self.kind in ("DATE", "DATETIME"):
            return normalised_time(value)
        if self.kind == "DROPDOWN":
            return _expect(value in self.options, value, "one of its options")
        if self.kind == "MULTISELECT":
            return _expect(set(value.split(";")) <= set(self.options), value, "its options joined by ';'")
        if self.kind == "TEXT":
            return _expect(len(value) <= TEXT_LENGTH, value, f"a text of at most {TEXT_LENGTH} characters")
        return value

    def metadata(self, record_type: RecordType, order: int) -> dict[str, Any]:
        """Return the field as ``/CustomFields/{objectName}`` describes it."""
        return {
            "FIELD_NAME": self.name,
            "FIELD_ORDER": order,
            "FIELD_FOR": record_type.title if record_type.is_custom_object else record_type.title.upper(),
            "FIELD_LABEL": self.label,
            "FIELD_TYPE": self.kind,
            "FIELD_HELP_TEXT": None,
            "DEFAULT_VALUE": None,
            "EDITABLE": self.kind != "AUTONUMBER",
            "VISIBLE": True,
            "CUSTOM_FIELD_OPTIONS": [
                {"OPTION_ID": number, "OPTION_VALUE": option, "OPTION_DEFAULT": False}
                for number, option in enumerate(self.options, start=1)
            ],
            "DEPENDENCY": None,
            "JOIN_OBJECT": None,
        }


@dataclass(frozen=True)
class CustomObject:
    """A custom object.

    :param name: its name in the API, which ends in ``__c``.
    :param singular: its name for people.
    :param plural: the plural of that name.
    """

    name: str
    singular: str
    plural: str

    def metadata(self, user_id: int, created: str) -> dict[str, Any]:
        """Return the object as ``/CustomObjects`` describes it."""
        return {
            "OBJECT_NAME": self.name,
            "SINGULAR_LABEL": self.singular,
            "PLURAL_LABEL": self.plural,
            "DESCRIPTION": None,
            "RECORD_NAME_LABEL": f"{self.singular} name",
            "RECORD_NAME_TYPE": "TEXT",
            "RECORD_NAME_DISPLAY_FORMAT": None,
            "ENABLE_NAVBAR": True,
            "ENABLE_WORKFLOWS": True,
            "CREATED_USER_ID": user_id,
            "DATE_CREATED_UTC": created,
            "DATE_UPDATED_UTC": created,
        }


def custom_field_entry(name: str, value: Any) -> dict[str, Any]:
    """Return a custom field and its value as an item of a record's ``CUSTOMFIELDS``."""
    return {"FIELD_NAME": name, "FIELD_VALUE": value, "CUSTOM_FIELD_ID": name}


def _expect(holds: bool, value: Any, expected: str) -> Any:
    if not holds:
        raise ValueError(expected)
    return value


CUSTOM_OBJECTS = {
    custom_object.name: custom_object
    for custom_object in (
        CustomObject("Invoice__c", "Invoice", "Invoices"),
        CustomObject("Site__c", "Site", "Sites"),
    )
}

_REGION = CustomField("Region__c", "DROPDOWN", "Region", ("Americas", "Asia", "Europe"))

CUSTOM_FIELDS: dict[str, tuple[CustomField, ...]] = {
    "Contacts": (
        _REGION,
        CustomField(
            "Interests__c", "MULTISELECT", "Interests", ("Music", "Sports", "Travel", "Books", "Cooking")
        ),
        CustomField("Newsletter__c", "BIT", "Receives the newsletter"),
        CustomField("Customer_since__c", "DATE", "Customer since"),
        CustomField("Nickname__c", "TEXT", "Nickname"),
    ),
    "Leads": (
        _REGION,
        CustomField("Budget__c", "NUMERIC", "Budget"),
        CustomField("Next_call__c", "DATETIME", "Next call"),
    ),
    "Opportunities": (
        CustomField("Competitors__c", "MULTILINETEXT", "Competitors"),
        CustomField("Discount__c", "PERCENT", "Discount"),
        CustomField("Contract_no__c", "AUTONUMBER", "Contract number"),
        CustomField("Channel__c", "DROPDOWN", "Channel", ("Direct", "Partner", "Web")),
    ),
    "Organisations": (
        CustomField("Tier__c", "DROPDOWN", "Tier", ("Gold", "Silver", "Bronze")),
        CustomField("Annual_revenue__c", "NUMERIC", "Annual revenue"),
        CustomField("Last_audit__c", "DATE", "Last audit"),
    ),
    "Projects": (
        CustomField("Billable__c", "BIT", "Billable"),
        CustomField("Progress__c", "PERCENT", "Progress"),
    ),
    "Tasks": (
        CustomField("Effort_hours__c", "NUMERIC", "Effort in hours"),
        CustomField("Approved_at__c", "DATETIME", "Approved at"),
    ),
    "Ticket": (
        CustomField("Severity__c", "DROPDOWN", "Severity", ("1", "2", "3", "4")),
        CustomField("Steps__c", "MULTILINETEXT", "Steps to reproduce"),
    ),
    "Product": (CustomField("Colours__c", "MULTISELECT", "Colours", ("Red", "Green", "Blue")),),
    "Invoice__c": (
        CustomField("Number__c", "AUTONUMBER", "Invoice number"),
        CustomField("Amount__c", "NUMERIC", "Amount"),
        CustomField("Due__c", "DATE", "Due"),
        CustomField("Paid__c", "BIT", "Paid"),
    ),
    "Site__c": (
        CustomField("Address__c", "MULTILINETEXT", "Address"),
        CustomField("Opened_at__c", "DATETIME", "Opened at"),
        _REGION,
    ),
}
"""The custom fields by record type. Other record types don't have custom fields."""
