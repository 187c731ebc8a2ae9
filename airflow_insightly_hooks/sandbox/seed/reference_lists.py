"""The lists of an account beside its records: categories, pipelines, sources, teams and so on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.sandbox.crm.clock import format_time

__all__ = [
    "CONVERTED",
    "LEAD_SOURCE_IDS",
    "LEAD_STATUS_IDS",
    "ReferenceList",
    "opportunity_fields",
    "project_fields",
    "reference_lists",
]

LEAD_SOURCE_IDS = range(3_300_001, 3_300_005)
LEAD_STATUS_IDS = range(3_400_001, 3_400_004)
OPPORTUNITY_CATEGORY_IDS = range(9_998_801, 9_998_804)
PROJECT_CATEGORY_IDS = range(9_998_851, 9_998_854)
TASK_CATEGORY_IDS = range(9_998_895, 9_998_898)
"""The first id is the category of the task on Insightly's help page."""
SALES_PIPELINE, PROJECT_PIPELINE = 700_001, 700_002
OPPORTUNITY_STAGES = tuple((SALES_PIPELINE, stage) for stage in range(710_001, 710_005))
"""The pipeline and stage of each step of a sale. ``PROJECT_STAGES`` has them for projects."""
PROJECT_STAGES = tuple((PROJECT_PIPELINE, stage) for stage in range(710_011, 710_014))
ACTIVITY_SETS = (720_001, 720_002)
TEAMS = (730_001, 730_002)
FIRST_PERMISSION = 740_001
CONVERTED = 3
"""The ``STATUS_TYPE`` of leads that were converted."""


class ReferenceList(NamedTuple):
    """A list of the account that can be read.

    :param id_field: the field with an item's id, which the API takes to get one item; ``None`` if the API
        doesn't offer that.
    :param items: the items in the API's notation.
    :param has_pages: whether the API offers ``skip``, ``top`` and ``count_total``.
    :param brief_field: the field with a list, which ``brief`` leaves out.
    """

    items: list[dict[str, Any]]
    id_field: str | None = None
    has_pages: bool = True
    brief_field: str | None = None


def reference_lists(started: datetime, first_user_id: int) -> dict[str, ReferenceList]:
    """Return the lists by their paths, without the tags, which come from the records.

    :param started: the start time of the sandbox. All times are before it.
    :param first_user_id: the id of the first of the account's five users.
    """
    users = range(first_user_id, first_user_id + 5)
    teams = _teams(started, users)
    return {
        "ActivitySets": ReferenceList(_activity_sets(users), "ACTIVITYSET_ID", brief_field="ACTIVITIES"),
        "Countries": ReferenceList([{"COUNTRY_NAME": name} for name in _COUNTRIES], has_pages=False),
        "Currencies": ReferenceList(
            [{"CURRENCY_CODE": code, "CURRENCY_SYMBOL": symbol} for code, symbol in _CURRENCIES],
            has_pages=False,
        ),
        "LeadSources": ReferenceList(
            [
                {
                    "LEAD_SOURCE_ID": number,
                    "LEAD_SOURCE": name,
                    "DEFAULT_VALUE": order == 1,
                    "FIELD_ORDER": order,
                }
                for order, (number, name) in enumerate(
                    zip(LEAD_SOURCE_IDS, ("Website", "Phone", "Referral", "Trade fair"), strict=True), start=1
                )
            ]
        ),
        "LeadStatuses": ReferenceList(_lead_statuses()),
        "OpportunityCategories": ReferenceList(
            _categories(OPPORTUNITY_CATEGORY_IDS, ("New business", "Renewal", "Service")), "CATEGORY_ID"
        ),
        "OpportunityStateReasons": ReferenceList(
            [
                {"STATE_REASON_ID": number, "STATE_REASON": reason, "FOR_OPPORTUNITY_STATE": state}
                for number, (reason, state) in enumerate(_STATE_REASONS, start=3_500_001)
            ]
        ),
        "Pipelines": ReferenceList(
            [
                _pipeline(SALES_PIPELINE, "Sales", users[0], is_for_projects=False),
                _pipeline(PROJECT_PIPELINE, "Project", users[0], is_for_projects=True),
            ],
            "PIPELINE_ID",
        ),
        "PipelineStages": ReferenceList(_stages(users[0]), "STAGE_ID"),
        "ProjectCategories": ReferenceList(
            _categories(PROJECT_CATEGORY_IDS, ("Customer", "Internal", "Event")), "CATEGORY_ID"
        ),
        "Relationships": ReferenceList(
            [
                {
                    "RELATIONSHIP_ID": number,
                    "FORWARD_TITLE": title,
                    "FORWARD": forward,
                    "REVERSE_TITLE": reverse_title,
                    "REVERSE": reverse,
                    "FOR_CONTACTS": is_for_contacts,
                    "FOR_ORGANISATIONS": not is_for_contacts,
                }
                for number, (title, forward, reverse_title, reverse, is_for_contacts) in enumerate(
                    _RELATIONSHIPS, start=3_600_001
                )
            ]
        ),
        "TaskCategories": ReferenceList(
            _categories(TASK_CATEGORY_IDS, ("Follow-up", "Meeting", "Paperwork")), "CATEGORY_ID"
        ),
        "TeamMembers": ReferenceList(
            [member for team in teams for member in team["TEAMMEMBERS"]], "PERMISSION_ID"
        ),
        "Teams": ReferenceList(teams, "TEAM_ID", brief_field="TEAMMEMBERS"),
    }


def opportunity_fields(number: int) -> dict[str, int]:
    """Return the category, pipeline and stage of the opportunity with this number."""
    return _fields(number, OPPORTUNITY_CATEGORY_IDS, OPPORTUNITY_STAGES)


def project_fields(number: int) -> dict[str, int]:
    """Return the category, pipeline and stage of the project with this number."""
    return _fields(number, PROJECT_CATEGORY_IDS, PROJECT_STAGES)


def _fields(number: int, categories: range, stages: Sequence[tuple[int, int]]) -> dict[str, int]:
    pipeline, stage = stages[number % len(stages)]
    return {
        "CATEGORY_ID": categories[number % len(categories)],
        "PIPELINE_ID": pipeline,
        "STAGE_ID": stage,
    }


# fmt: off
_COUNTRIES = (
    "Australia", "Austria", "Brazil", "Canada", "France", "Germany", "India", "Italy", "Japan", "Mexico",
    "Spain", "Sweden", "Switzerland", "United Kingdom", "United States",
)
_CURRENCIES = (
    ("AUD", "$"), ("CAD", "$"), ("CHF", "CHF"), ("EUR", "€"), ("GBP", "£"), ("JPY", "¥"), ("USD", "$"),
)
_STATE_REASONS = (
    ("Best offer", "WON"), ("Known supplier", "WON"), ("Too expensive", "LOST"), ("No budget", "SUSPENDED"),
    ("Changed their mind", "ABANDONED"),
)
_RELATIONSHIPS = (
    ("Manager", "is the manager of", "Employee", "is managed by", True),
    ("Colleague", "works with", "Colleague", "works with", True),
    ("Parent company", "owns", "Subsidiary", "is owned by", False),
    ("Supplier", "supplies", "Customer", "is supplied by", False),
)
# fmt: on


def _lead_statuses() -> list[dict[str, Any]]:
    names = (
        *zip(LEAD_STATUS_IDS, ("Not contacted", "Contacted", "Disqualified"), (1, 1, 2), strict=True),
        (LEAD_STATUS_IDS.stop, "Converted", CONVERTED),
    )
    return [
        {
            "LEAD_STATUS_ID": number,
            "LEAD_STATUS": name,
            "DEFAULT_STATUS": order == 1,
            "STATUS_TYPE": status_type,
            "FIELD_ORDER": order,
        }
        for order, (number, name, status_type) in enumerate(names, start=1)
    ]


def _categories(ids: range, names: tuple[str, ...]) -> list[dict[str, Any]]:
    colours = ("3E9AC9", "7AB55C", "D96F32")
    return [
        {"CATEGORY_ID": number, "CATEGORY_NAME": name, "ACTIVE": True, "BACKGROUND_COLOR": colour}
        for number, name, colour in zip(ids, names, colours, strict=True)
    ]


def _pipeline(pipeline_id: int, name: str, owner: int, *, is_for_projects: bool) -> dict[str, Any]:
    return {
        "PIPELINE_ID": pipeline_id,
        "PIPELINE_NAME": name,
        "FOR_OPPORTUNITIES": not is_for_projects,
        "FOR_PROJECTS": is_for_projects,
        "OWNER_USER_ID": owner,
    }


def _stages(owner: int) -> list[dict[str, Any]]:
    sales = zip(OPPORTUNITY_STAGES, ("Contact", "Proposal", "Negotiation", "Contract"), strict=True)
    projects = zip(PROJECT_STAGES, ("Planning", "Work", "Hand-over"), strict=True)
    return [
        {
            "STAGE_ID": stage,
            "PIPELINE_ID": pipeline,
            "STAGE_NAME": name,
            "STAGE_ORDER": order,
            "ACTIVITYSET_ID": ACTIVITY_SETS[0] if pipeline == SALES_PIPELINE and order == 1 else None,
            "OWNER_USER_ID": owner,
        }
        for stages in (sales, projects)
        for order, ((pipeline, stage), name) in enumerate(stages, start=1)
    ]


def _activity_sets(users: range) -> list[dict[str, Any]]:
    return [
        {
            "ACTIVITYSET_ID": number,
            "NAME": name,
            "FOR_CONTACTS": True,
            "FOR_ORGANISATIONS": True,
            "FOR_OPPORTUNITIES": not is_for_projects,
            "FOR_PROJECTS": is_for_projects,
            "FOR_LEADS": not is_for_projects,
            "OWNER_USER_ID": users[0],
            "ACTIVITIES": [
                _activity(number, 10 * number + step, title, users, days)
                for step, (title, days) in enumerate(activities)
            ],
        }
        for number, (name, is_for_projects, activities) in zip(
            ACTIVITY_SETS,
            (
                ("First contact", False, (("Call", 1), ("Send the brochure", 3))),
                ("Hand-over", True, (("Collect signatures", 2),)),
            ),
            strict=True,
        )
    ]


def _activity(set_id: int, activity_id: int, title: str, users: range, days: int) -> dict[str, Any]:
    week = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
    return {
        "ACTIVITY_ID": activity_id,
        "ACTIVITYSET_ID": set_id,
        "ACTIVITY_NAME": title,
        "ACTIVITY_DETAILS": "",
        "ACTIVITY_TYPE": "TASK",
        "CATEGORY_ID": TASK_CATEGORY_IDS[0],
        "REMINDER": False,
        "REMINDER_DAYS_BEFORE_DUE": None,
        "REMINDER_TIME": None,
        "PUBLICLY_VISIBLE": True,
        "OWNER_VISIBLE": True,
        "OWNER_USER_ID": users[0],
        "RESPONSIBLE_USER_ID": users[1],
        "ASSIGNED_TEAM_ID": None,
        **{f"SKIP_{day}": day in ("SUN", "SAT") for day in week},
        "DUE_DAYS_AFTER_START": days,
        "DUE_DAYS_BEFORE_END": None,
        "EVENT_DAYS_AFTER_START": None,
        "EVENT_DAYS_BEFORE_END": None,
        "EVENT_TIME": None,
        "ALL_DAY": False,
        "DURATION": None,
    }


def _teams(started: datetime, users: range) -> list[dict[str, Any]]:
    created = format_time(started - timedelta(days=300))
    permissions = iter(range(FIRST_PERMISSION, FIRST_PERMISSION + 100))
    return [
        {
            "TEAM_ID": team,
            "TEAM_NAME": name,
            "DATE_CREATED_UTC": created,
            "DATE_UPDATED_UTC": created,
            "TEAMMEMBERS": [
                {"PERMISSION_ID": next(permissions), "TEAM_ID": team, "MEMBER_USER_ID": user}
                for user in members
            ],
        }
        for team, name, members in zip(TEAMS, ("Sales", "Support"), (users[:3], users[2:]), strict=True)
    ]
