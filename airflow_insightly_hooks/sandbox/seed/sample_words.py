"""The words in the seeded records. People and companies are fictitious."""

from __future__ import annotations

__all__ = [
    "ARTICLES",
    "COMPANIES",
    "DEALS",
    "FIRST_NAMES",
    "INDUSTRIES",
    "JOB_TITLES",
    "LAST_NAMES",
    "MEETINGS",
    "NOTES",
    "PLACES",
    "PROBLEMS",
    "PRODUCTS",
    "PROJECTS",
    "SALUTATIONS",
    "TAGS",
    "TASKS",
]

# fmt: off
FIRST_NAMES = (
    "Amélie", "Björn", "Chloé", "Daniel", "Emma", "François", "Grace", "Hannah", "Ibrahim", "José",
    "Jürgen", "Katarzyna", "Liam", "María", "Noah", "Olivia", "Priya", "Renée", "Søren", "Thomas", "Zoë",
    "太郎", "花子",
)
LAST_NAMES = (
    "Andersson", "Brown", "Castañeda", "Dubois", "Evans", "Fischer", "García", "Hernández", "Iyer",
    "Jensen", "Kowalski", "Lefèvre", "Müller", "Nguyen", "O'Neill", "Pérez", "Quinn", "Rossi", "Schäfer",
    "Turner", "山田",
)
COMPANIES = (
    "Alder & Finch", "Bluewater Freight", "Brasserie du Nord", "Cedar Hill Clinics", "Copper Kettle Foods",
    "Delta Roofing", "Évreux Textiles", "Fjord Analytics", "Granite Works", "Harbour Light Hotels",
    "Ironbridge Tools", "Juniper Schools", "Kestrel Aviation", "Larkspur Gardens", "Müller Präzision",
    "Nordlicht Energie", "Orchard Press", "Pine Street Dental", "Quayside Marine", "Redwood Solar",
    "Silverline Coaches", "Tideway Insurance", "Umbra Lighting", "Vega Robotics", "Willow Care", "日本橋商会",
)
PLACES = (
    ("12 Rue des Lilas", "Lyon", "Rhône", "69003", "France"),
    ("4 Quai de la Gare", "Paris", "Île-de-France", "75013", "France"),
    ("88 Market Street", "San Francisco", "CA", "94103", "United States"),
    ("510 Pike Street", "Seattle", "WA", "98101", "United States"),
    ("7 Königstraße", "München", "Bayern", "80331", "Germany"),
    ("23 Mill Lane", "Leeds", None, "LS1 4DY", "United Kingdom"),
    ("1-2-3 日本橋", "東京", None, "103-0027", "Japan"),
    ("15 Gran Vía", "Madrid", None, "28013", "Spain"),
)
JOB_TITLES = (
    "Buyer", "Chief Executive", "Controller", "Head of Operations", "IT Manager", "Office Manager", "Owner",
    "Sales Director",
)
INDUSTRIES = (
    "Construction", "Education", "Energy", "Food", "Health care", "Software", "Transport",
)
TAGS = (
    "Customer", "Partner", "Newsletter", "VIP", "Renewal", "Trade fair",
)
SALUTATIONS = (
    "Mr.", "Ms.", "Dr.", None,
)
DEALS = (
    "Annual renewal", "Pilot", "Rollout", "Service contract", "Spare parts", "Training days", "Upgrade",
)
PROJECTS = (
    "Data migration", "Factory relocation", "New website", "Office move", "Product launch",
    "Staff training",
)
TASKS = (
    "Call back about the quote", "Check references", "Collect signatures", "Prepare the demo",
    "Renew the licence", "Send the contract", "Update the price list", "Write the summary",
)
MEETINGS = (
    "Kick-off", "Lunch", "Phone call", "Quarterly review", "Site visit", "Workshop",
)
NOTES = (
    "Asked for a later start", "Decides in the spring", "Likes the new design", "Prefers e-mail",
    "Wants a rebate",
)
PRODUCTS = (
    "Desk lamp", "Filing cabinet", "Label printer", "Meeting table", "Monitor arm", "Notebook stand",
    "Office chair", "Projector", "Shelf", "Standing desk", "Webcam", "Whiteboard",
)
PROBLEMS = (
    "Cannot log in", "Delivery is late", "Invoice has the wrong address", "Parcel arrived damaged",
    "Password reset", "Question about warranty",
)
ARTICLES = (
    "Assembling the standing desk", "Changing your address", "Cleaning the whiteboard", "How returns work",
    "Paying by invoice", "Pairing the label printer", "Warranty terms",
)
# fmt: on
