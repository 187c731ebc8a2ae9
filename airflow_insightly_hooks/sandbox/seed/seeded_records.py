"""The records at the start of a sandbox. They are made up, linked, and the same each time."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache

from airflow_insightly_hooks.sandbox.crm.clock import Clock, format_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_OBJECTS
from airflow_insightly_hooks.sandbox.crm.record_store import RecordStore
from airflow_insightly_hooks.sandbox.crm.record_table import Record
from airflow_insightly_hooks.sandbox.seed import reference_lists, sample_words
from airflow_insightly_hooks.sandbox.seed.record_maker import FIRST_IDS, YEAR, RecordMaker, address_fields

__all__ = ["HELP_PAGE_TASK", "seeded_store"]

API_USER_ID = FIRST_IDS["Users"]
"""The user of the API key ``sandbox-key``."""

HELP_PAGE_TASK: Record = {
    "TASK_ID": 99922875,
    "TITLE": "New Lead Task",
    "CATEGORY_ID": 9998895,
    "DUE_DATE": "2017-03-10 08:00:00",
    "PUBLICLY_VISIBLE": True,
    "COMPLETED": False,
    "DETAILS": "",
    "STATUS": "NOT STARTED",
    "PRIORITY": 2,
    "PERCENT_COMPLETE": 0,
    "OWNER_VISIBLE": False,
    "RESPONSIBLE_USER_ID": API_USER_ID,
    "OWNER_USER_ID": API_USER_ID,
    "DATE_CREATED_UTC": "2017-03-10 03:34:10",
    "DATE_UPDATED_UTC": "2017-03-10 03:34:10",
    "REMINDER_SENT": False,
    "TASKLINKS": [],
}
"""The task on Insightly's help page on webhooks, as the API would return it, in the page's order.

On the page, the times of creation and update have milliseconds. In the API, they have whole seconds.
"""


def seeded_store(clock: Clock, started: float) -> RecordStore:
    """Return a store with records of every type.

    :param started: the start time, in seconds since 1970. The records' times are in the year before.
    """
    store = RecordStore(clock, API_USER_ID)
    store.load(_seeded_records(started))
    return store


@lru_cache(maxsize=1)  # tests reset a sandbox many times
def _seeded_records(started: float) -> str:
    store = RecordStore(Clock(lambda: started), API_USER_ID)
    maker = RecordMaker(store, datetime.fromtimestamp(started, timezone.utc))
    for add_records in (
        _add_users,
        _add_people,
        _add_sales,
        _add_projects_and_activities,
        _add_support,
        _add_custom_objects,
    ):
        add_records(maker)
    return store.dump()


def _add_users(maker: RecordMaker) -> None:
    for number, (first, last) in enumerate(
        (
            ("Sam", "Sandbox"),
            ("Amélie", "Dubois"),
            ("Jürgen", "Müller"),
            ("Priya", "Iyer"),
            ("花子", "山田"),
        )
    ):
        maker.add(
            "Users",
            FIRST_NAME=first,
            LAST_NAME=last,
            CONTACT_ID=FIRST_IDS["Contacts"] + number,
            TIMEZONE_ID="Pacific Standard Time",
            EMAIL_ADDRESS=f"user{number}@example.com",
            EMAIL_DROPBOX_IDENTIFIER=f"sandbox{number}",
            EMAIL_DROPBOX_ADDRESS=f"sandbox{number}@mail.example.com",
            ADMINISTRATOR=number < 2,
            ACCOUNT_OWNER=number == 0,
            ACTIVE=number < 4,
            USER_CURRENCY="USD",
            CONTACT_DISPLAY="FIRST_LAST",
            CONTACT_ORDER="LAST",
            TASK_WEEK_START=1,
            INSTANCE_ID=123_456,
            PROFILE_ID=1,
            ROLE_ID=1,
        )


def _add_people(maker: RecordMaker) -> None:
    for company in sample_words.COMPANIES:
        street, city, state, postcode, country = maker.choice(sample_words.PLACES)
        maker.add(
            "Organisations",
            ORGANISATION_NAME=company,
            PHONE=maker.random_phone(),
            WEBSITE=f"https://organisation{maker.next_number('site')}.example.com",
            **address_fields("ADDRESS_BILLING", street, city, state, postcode, country),
            TAGS=maker.random_tags(),
            EMAILDOMAINS=[{"EMAIL_DOMAIN": f"organisation{maker.next_number('domain')}.example.com"}],
        )
    for number in range(60):
        organisation = maker.random_record("Organisations")
        maker.add(
            "Contacts",
            SALUTATION=maker.choice(sample_words.SALUTATIONS),
            FIRST_NAME=maker.choice(sample_words.FIRST_NAMES),
            LAST_NAME=maker.choice(sample_words.LAST_NAMES),
            EMAIL_ADDRESS=f"contact{number}@example.com",
            PHONE=maker.random_phone(),
            TITLE=maker.choice(sample_words.JOB_TITLES),
            ORGANISATION_ID=organisation["ORGANISATION_ID"],
            DATE_OF_BIRTH=f"{maker.random.randint(1955, 2001)}-0{maker.random.randint(1, 9)}-17 00:00:00",
            **address_fields("ADDRESS_MAIL", *maker.choice(sample_words.PLACES)),
            TAGS=maker.random_tags(),
            LINKS=[maker.link("Organisations", organisation)],
            DATES=[{"OCCASION_NAME": "First order", "OCCASION_DATE": "2019-05-02", "REPEAT_YEARLY": True}]
            if number % 7 == 0
            else [],
        )
    for number in range(40):
        maker.add(
            "Leads",
            FIRST_NAME=maker.choice(sample_words.FIRST_NAMES),
            LAST_NAME=maker.choice(sample_words.LAST_NAMES),
            EMAIL=f"lead{number}@example.com",
            TITLE=maker.choice(sample_words.JOB_TITLES),
            ORGANISATION_NAME=maker.choice(sample_words.COMPANIES),
            INDUSTRY=maker.choice(sample_words.INDUSTRIES),
            EMPLOYEE_COUNT=maker.random.randint(3, 900),
            LEAD_RATING=maker.random.randint(1, 5),
            LEAD_SOURCE_ID=maker.choice(reference_lists.LEAD_SOURCE_IDS),
            LEAD_STATUS_ID=maker.choice(reference_lists.LEAD_STATUS_IDS),
            PHONE=maker.random_phone(),
            **address_fields("ADDRESS", *maker.choice(sample_words.PLACES)),
            TAGS=maker.random_tags(),
        )
    for number in range(20):
        lead = maker.random_record("Leads")
        maker.add(
            "Prospect",
            LEAD_ID=lead["LEAD_ID"],
            FIRST_NAME=lead["FIRST_NAME"],
            LAST_NAME=lead["LAST_NAME"],
            EMAIL_ADDRESS=f"prospect{number}@example.com",
            INDUSTRY=lead["INDUSTRY"],
            SCORE=maker.random.randint(0, 100),
            GRADE=maker.choice(("A", "B+", "B", "C")),
            TAGS=maker.random_tags(),
        )


def _add_sales(maker: RecordMaker) -> None:
    for name, is_standard in (("Standard", True), ("Partners", False)):
        maker.add("Pricebook", NAME=name, CURRENCY_CODE="USD", IS_STANDARD=is_standard, ACTIVE=True)
    for name in sample_words.PRODUCTS:
        price = maker.random.randint(20, 900) + 0.5
        product = maker.add(
            "Product",
            PRODUCT_NAME=name,
            PRODUCT_CODE=f"P-{maker.next_number('code'):03}",
            PRODUCT_SKU=f"SKU{maker.next_number('sku'):05}",
            DEFAULT_PRICE=price,
            ACTIVE=True,
        )
        for pricebook in maker.records("Pricebook"):
            maker.add(
                "PricebookEntry",
                PRICEBOOK_ID=pricebook["PRICEBOOK_ID"],
                PRODUCT_ID=product["PRODUCT_ID"],
                PRICE=price,
                USE_STANDARD_PRICE=True,
                ACTIVE=True,
            )
    for number in range(30):
        organisation = maker.random_record("Organisations")
        maker.add(
            "Opportunities",
            **reference_lists.opportunity_fields(number),
            OPPORTUNITY_NAME=f"{maker.choice(sample_words.DEALS)}, {organisation['ORGANISATION_NAME']}",
            OPPORTUNITY_STATE=maker.choice(("OPEN", "WON", "LOST", "SUSPENDED")),
            BID_AMOUNT=maker.random.randint(5, 900) * 100,
            PROBABILITY=maker.random.randint(1, 10) * 10,
            FORECAST_CLOSE_DATE=maker.random_day(-30, 180),
            ORGANISATION_ID=organisation["ORGANISATION_ID"],
            PRICEBOOK_ID=maker.random_record("Pricebook")["PRICEBOOK_ID"],
            RESPONSIBLE_USER_ID=maker.random_user_id(),
            TAGS=maker.random_tags(),
            LINKS=[maker.link("Contacts", maker.random_record("Contacts"))],
        )
    for number in range(12):
        opportunity, contact = maker.random_record("Opportunities"), maker.random_record("Contacts")
        lines = []
        for entry in maker.random.sample(maker.records("PricebookEntry"), 2):
            item = {
                "PRICEBOOK_ENTRY_ID": entry["PRICEBOOK_ENTRY_ID"],
                "CURRENCY_CODE": "USD",
                "UNIT_PRICE": entry["PRICE"],
                "LIST_PRICE": entry["PRICE"],
                "QUANTITY": maker.random.randint(1, 40),
            }
            lines.append(
                maker.add("OpportunityLineItem", OPPORTUNITY_ID=opportunity["OPPORTUNITY_ID"], **item)
            )
        total = sum(line["TOTAL_PRICE"] for line in lines)
        quotation = maker.add(
            "Quotation",
            QUOTATION_NAME=f"Quotation {number + 1}",
            OPPORTUNITY_ID=opportunity["OPPORTUNITY_ID"],
            ORGANISATION_ID=opportunity["ORGANISATION_ID"],
            CONTACT_ID=contact["CONTACT_ID"],
            PRICEBOOK_ID=opportunity["PRICEBOOK_ID"],
            QUOTE_STATUS=maker.choice(("DRAFT", "PRESENTED", "ACCEPTED")),
            QUOTATION_EXPIRATION_DATE=maker.random_day(10, 60),
            LINE_ITEM_COUNT=len(lines),
            SUBTOTAL=total,
            TOTAL_PRICE=total,
            GRAND_TOTAL=total,
            **address_fields("ADDRESS_BILLING", *maker.choice(sample_words.PLACES)),
        )
        for order, line in enumerate(lines, start=1):
            shared = ("OPPORTUNITY_ITEM_ID", "PRICEBOOK_ENTRY_ID", "CURRENCY_CODE", "UNIT_PRICE")
            maker.add(
                "QuotationLineItem",
                QUOTE_ID=quotation["QUOTE_ID"],
                QUANTITY=line["QUANTITY"],
                LIST_PRICE=line["LIST_PRICE"],
                SORT_ORDER=order,
                **{name: line[name] for name in shared},
            )


def _add_projects_and_activities(maker: RecordMaker) -> None:
    for number in range(15):
        organisation = maker.random_record("Organisations")
        maker.add(
            "Projects",
            **reference_lists.project_fields(number),
            PROJECT_NAME=f"{maker.choice(sample_words.PROJECTS)}, {organisation['ORGANISATION_NAME']}",
            STATUS=maker.choice(("NOT STARTED", "IN PROGRESS", "DEFERRED", "COMPLETED")),
            STARTED_DATE=maker.random_day(-200, -1),
            RESPONSIBLE_USER_ID=maker.random_user_id(),
            TAGS=maker.random_tags(),
            LINKS=[maker.link("Organisations", organisation)],
        )
        maker.add(
            "Milestones",
            TITLE=f"Milestone {number + 1}",
            COMPLETED=False,
            DUE_DATE=maker.random_day(-20, 120),
            PROJECT_ID=maker.random_record("Projects")["PROJECT_ID"],
            RESPONSIBLE_USER=maker.random_user_id(),
        )
    for _ in range(HELP_PAGE_TASK["TASK_ID"] - FIRST_IDS["Tasks"]):
        completed = maker.random.random() < 0.3
        maker.add(
            "Tasks",
            TITLE=maker.choice(sample_words.TASKS),
            DUE_DATE=maker.random_day(-60, 90),
            COMPLETED=completed,
            COMPLETED_DATE_UTC=maker.random_day(-60, -1) if completed else None,
            STATUS="COMPLETED" if completed else maker.choice(("NOT STARTED", "IN PROGRESS", "WAITING")),
            PRIORITY=maker.random.randint(1, 3),
            PERCENT_COMPLETE=100 if completed else maker.choice((0, 25, 50)),
            PROJECT_ID=maker.choice((None, maker.random_record("Projects")["PROJECT_ID"])),
            RESPONSIBLE_USER_ID=maker.random_user_id(),
            LINKS=[maker.link("Contacts", maker.random_record("Contacts"))],
        )
    maker.store.put(maker.store.record_types["Tasks"], {**HELP_PAGE_TASK, "TASKLINKS": []})
    for _ in range(20):
        day = maker.random_day(-90, 60)[:10]
        maker.add(
            "Events",
            TITLE=maker.choice(sample_words.MEETINGS),
            LOCATION=maker.choice(sample_words.PLACES)[1],
            START_DATE_UTC=f"{day} 09:00:00",
            END_DATE_UTC=f"{day} 10:30:00",
            LINKS=[maker.link("Contacts", maker.random_record("Contacts"))],
        )
    for number in range(30):
        about = maker.choice(maker.store.record_types["Notes"].parents)
        maker.add(
            "Notes",
            TITLE=maker.choice(sample_words.NOTES),
            BODY=f"<p>Written down after call {number + 1}.</p>",
            LINKS=[maker.link(about, maker.random_record(about))],
        )
    for number in range(15):
        contact = maker.random_record("Contacts")
        maker.add(
            "Emails",
            EMAIL_FROM=contact["EMAIL_ADDRESS"],
            SUBJECT=f"{maker.choice(sample_words.DEALS)}: question {number + 1}",
            EMAIL_DATE_UTC=maker.random_day(-300, -1),
            FORMAT="HTML",
            SIZE=maker.random.randint(900, 90_000),
            TAGS=maker.random_tags(),
            LINKS=[maker.link("Contacts", contact)],
        )
    for name in ("Offer", "Order confirmation", "Reminder", "Welcome letter"):
        maker.add(
            "DocumentTemplates",
            TEMPLATE_NAME=name,
            TEMPLATE_FILE_TYPE="docx",
            RELATED_OBJECT_NAME="Opportunity",
            ACTIVE=True,
        )


def _add_support(maker: RecordMaker) -> None:
    for _ in range(25):
        contact = maker.random_record("Contacts")
        maker.add(
            "Ticket",
            SUBJECT=maker.choice(sample_words.PROBLEMS),
            TICKET_STATUS=maker.choice(("OPEN", "PENDING", "SOLVED", "CLOSED")),
            PRIORITY=maker.choice(("LOW", "NORMAL", "HIGH", "URGENT")),
            CONTACT_ID=contact["CONTACT_ID"],
            ORGANISATION_ID=contact["ORGANISATION_ID"],
            SOURCE="EMAIL",
            TAGS=maker.random_tags(),
        )
    for name in ("Orders", "Products"):
        category = maker.add("KnowledgeArticleCategory", CATEGORY_NAME=name)
        for folder_name in ("First steps", "Questions"):
            maker.add(
                "KnowledgeArticleFolder",
                FOLDER_NAME=folder_name,
                CATEGORY_ID=str(category["CATEGORY_ID"]),
                VISIBILITY="PUBLIC",
                ORDER_ARTICLES="MANUAL",
            )
    for title in sample_words.ARTICLES:
        folder = maker.random_record("KnowledgeArticleFolder")
        maker.add(
            "KnowledgeArticle",
            CATEGORY_ID=int(folder["CATEGORY_ID"]),
            FOLDER_ID=folder["FOLDER_ID"],
            Title=title,
            Body=f"<p>{title}.</p>",
            URL_SLUG=title.lower().replace(" ", "-"),
            Status="Published",
            FIRST_PUBLISHED_DATE_UTC=maker.random_day(-300, -200),
            LAST_PUBLISHED_DATE_UTC=maker.random_day(-199, -2),
            TAGS=maker.random_tags(),
        )
    forum_category = maker.add("ForumCategories", CATEGORY_NAME="Community")
    for number, name in enumerate(("Announcements", "Ideas", "Questions"), start=1):
        forum = maker.add(
            "CommunityForums",
            FORUM_CATEGORY_ID=forum_category["FORUM_CATEGORY_ID"],
            FORUM_NAME=name,
            FORUM_TYPE="DISCUSSION",
            VISIBILITY="PUBLIC",
            FORUM_ORDER=str(number),
        )
        for problem in maker.random.sample(sample_words.PROBLEMS, 3):
            post = maker.add(
                "CommunityPosts",
                FORUM_ID=forum["FORUM_ID"],
                POST_NAME=problem,
                MESSAGE=f"{problem}. Who knows more?",
                STATUS="OPEN",
                COMMENT_COUNT="1",
                VIEW_COUNT=str(maker.random.randint(1, 400)),
                CREATED_CONTACT_ID=maker.random_record("Contacts")["CONTACT_ID"],
            )
            maker.add(
                "CommunityComments",
                BODY="I had that too.",
                POST_ID=post["POST_ID"],
                FORUM_ID=forum["FORUM_ID"],
                CREATED_CONTACT_ID=maker.random_record("Contacts")["CONTACT_ID"],
            )


def _add_custom_objects(maker: RecordMaker) -> None:
    created = format_time(maker.started - YEAR)
    for name, custom_object in CUSTOM_OBJECTS.items():
        maker.store.custom_objects[name] = custom_object.metadata(API_USER_ID, created)
    for number in range(15):
        maker.add("Invoice__c", RECORD_NAME=f"{maker.choice(sample_words.COMPANIES)} {number + 1:03}")
    for _, city, *_ in sample_words.PLACES:
        maker.add("Site__c", RECORD_NAME=f"Warehouse {city}")
