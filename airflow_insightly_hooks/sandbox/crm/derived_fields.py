"""The fields that the CRM fills in by itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from airflow_insightly_hooks.core.records import RecordType

__all__ = ["default_values", "set_derived_fields"]

_DEFAULT_VALUES: dict[str, dict[str, Any]] = {
    "KnowledgeArticle": {
        "ArticleVersion": "1",
        "Status": "Draft",
        "Language": "en",
        "DOWNVOTE_COUNT": 0,
        "UPVOTE_COUNT": 0,
    },
    "Opportunities": {"OPPORTUNITY_STATE": "OPEN", "BID_CURRENCY": "USD", "BID_TYPE": "Fixed Bid"},
    "Pricebook": {"CURRENCY_CODE": "USD"},
    "PricebookEntry": {"CURRENCY_CODE": "USD"},
    "Product": {"CURRENCY_CODE": "USD"},
    "Quotation": {"QUOTATION_CURRENCY_CODE": "USD", "LINE_ITEM_COUNT": 0},
    "Tasks": {"STATUS": "NOT STARTED", "PRIORITY": 2, "PERCENT_COMPLETE": 0},
    "Ticket": {"SOURCE": "API"},
}
_NUMBER_FIELDS = {
    "KnowledgeArticle": "ARTICLE_NO",
    "Quotation": "QUOTATION_NUMBER",
    "Ticket": "TICKET_NUMBER",
}
_USER_FIELDS = ("OWNER_USER_ID", "CREATED_USER_ID", "RESPONSIBLE_USER_ID", "ASSIGNED_BY_USER_ID")


def default_values(record_type: RecordType, record_id: int, user_id: int) -> dict[str, Any]:
    """Return the values that a new record gets for fields that its creator leaves out."""
    values: dict[str, Any] = {name: user_id for name in _USER_FIELDS if name in record_type.fields}
    number = _NUMBER_FIELDS.get(record_type.name)
    if number:
        is_text = record_type.fields[number].kind == "text"
        values[number] = str(record_id) if is_text else record_id
    return values | _DEFAULT_VALUES.get(record_type.name, {})


def set_derived_fields(
    record_type: RecordType, record: dict[str, Any], now: str, *, unchanged: Collection[str] = ()
) -> None:
    """Set the fields of ``record`` that the CRM computes from other fields.

    :param now: the time, as the API writes it.
    :param unchanged: fields that are not set.
    """
    values: dict[str, Any] = {}
    if record_type.name == "Opportunities":
        amount = record["BID_AMOUNT"]
        values["OPPORTUNITY_VALUE"] = None if amount is None else amount * (record["BID_DURATION"] or 1)
    elif "COMPLETED_DATE_UTC" in record_type.fields:
        values["COMPLETED_DATE_UTC"] = (
            (record.get("COMPLETED_DATE_UTC") or now) if record["COMPLETED"] else None
        )
    elif "UNIT_PRICE" in record_type.fields and None not in (record["UNIT_PRICE"], record["QUANTITY"]):
        subtotal = record["UNIT_PRICE"] * record["QUANTITY"]
        values["LIST_PRICE"] = record["UNIT_PRICE"] if record["LIST_PRICE"] is None else record["LIST_PRICE"]
        values["SUBTOTAL"] = subtotal
        values["TOTAL_PRICE"] = subtotal * (1 - (record["DISCOUNT"] or 0) / 100)
    record.update({name: value for name, value in values.items() if name in record and name not in unchanged})
