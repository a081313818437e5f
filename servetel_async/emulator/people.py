"""Callers and agents: names in the scripts of India, and numbers that do not exist."""

from random import Random
from typing import Final

__all__ = ["CIRCLES", "NAMES", "OPERATORS", "unreal_number"]

NAMES: Final = (
    "Aarav Sharma",
    "Ananya Iyer",
    "Arjun Reddy",
    "Chloë D'Souza",
    "Deepa Nair",
    "Farhan Qureshi",
    "Gurpreet Singh",
    "Ishita Banerjee",
    'Jyoti "JJ" Joshi',
    "Kavya Menon",
    "José Fernandes",
    "Meera Pillai",
    "Nikhil Deshpande",
    "Priya Raghunathan",
    "Rohan/Accounts",
    "Sana Sheikh",
    "Vikram Rathore",
    "Zoya Khan",
    "आरव शर्मा",
    "प्रिया वर्मा",
    "सुनीता देशमुख",
    "राजेश कुमार",
    "அனிதா சுந்தரம்",
    "கார்த்திக் ராஜன்",
    "মৌসুমী চট্টোপাধ্যায়",
    "অর্ণব সেন",
    "లక్ష్మీ ప్రసాద్",
    "ಶ್ರೀನಿವಾಸ ಗೌಡ",
    "ગીતા પટેલ",
    "ਹਰਪ੍ਰੀਤ ਕੌਰ",
    "അഞ്ജലി മേനോൻ",
    "فرحان قریشی",
)

OPERATORS: Final = ("Airtel", "BSNL", "Jio", "Reliance Mobile GSM", "Vi")

CIRCLES: Final = (
    "Andhra Pradesh",
    "Bihar & Jharkhand",
    "Delhi",
    "Gujarat",
    "Karnataka",
    "Kerala",
    "Kolkata",
    "Maharashtra",
    "Mumbai",
    "Punjab",
    "Tamil Nadu",
    "UP (East)",
)


def unreal_number(random: Random) -> str:
    """Return a number that looks Indian but cannot exist: behind +91 no subscriber number begins with 0."""
    return f"+910{random.randrange(10**9):09}"
