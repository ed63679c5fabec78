from django.contrib import admin
from django.urls import path

from gallery import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("invoices/<int:number>/", views.invoice),
    path("photos/<int:number>/link/", views.link),
]
